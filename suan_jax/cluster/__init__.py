"""Starting jobs on many machines: what the launch files of `launch/cluster/` tell the cluster's own tools."""
