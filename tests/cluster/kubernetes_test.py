"""The manifests, parsed, against the fields that Kubernetes and JobSet require of what they use.

No API server is asked. Checked is, by hand-written rules from the public API reference (batch/v1 Job,
core/v1 Pod, jobset.x-k8s.io/v1alpha2): required fields and their types, that no field outside the rules is
there (the server would refuse or drop a misspelt one), and what fields demand of each other.
"""

import pytest
import yaml

from suan_jax.cluster import kubernetes
from suan_jax.cluster.job import IN_PARTS, ON_ALL_HOSTS, parse_job

TRAIN = parse_job("suan", "launch/train.py --config=configs/suan.py --workdir=/shared/x", ON_ALL_HOSTS)
SWEEP = parse_job("sizes", "launch/sweep.py --config=configs/data_size.py --workdir=/shared/x", IN_PARTS)


class Optional:
    def __init__(self, rule):
        self.rule = rule


_EXIT_RULE = {
    "action": str,
    "onExitCodes": Optional({"containerName": str, "operator": str, "values": [int]}),
    "onPodConditions": Optional([{"type": str, "status": str}]),
}
_POD = {
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "nodeSelector": Optional({str: str}),
    "containers": [
        {
            "name": str,
            "image": str,
            "command": [str],
            "env": [{"name": str, "value": str}],
            "ports": Optional([{"containerPort": int}]),
            "resources": {"limits": {str: int}},
            "volumeMounts": Optional([{"name": str, "mountPath": str}]),
        }
    ],
    "volumes": Optional([{"name": str, "persistentVolumeClaim": {"claimName": str}}]),
}
_JOB_SPEC = {
    "parallelism": int,
    "completions": int,
    "completionMode": str,
    "backoffLimit": Optional(int),
    "backoffLimitPerIndex": Optional(int),
    "podFailurePolicy": {"rules": [_EXIT_RULE]},
    "template": {"spec": _POD},
}
_JOB = {"apiVersion": str, "kind": str, "metadata": {"name": str}, "spec": _JOB_SPEC}
_JOBSET = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "annotations": {str: str}},
    "spec": {
        "failurePolicy": {"maxRestarts": int, "rules": [{"action": str, "onJobFailureReasons": [str]}]},
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": _JOB_SPEC}}],
    },
}


def _check(value, rule, where=""):
    if isinstance(rule, Optional):
        rule = rule.rule
    if isinstance(rule, type):
        assert type(value) is rule, f"{where} is {value!r}"
    elif isinstance(rule, list):
        assert isinstance(value, list) and value, where
        for index, item in enumerate(value):
            _check(item, rule[0], f"{where}[{index}]")
    elif list(rule) == [str]:
        for name, item in value.items():
            _check(name, str, where)
            _check(item, rule[str], f"{where}.{name}")
    else:
        assert not set(value) - set(rule), f"{where} has {set(value) - set(rule)}"
        for name, inner in rule.items():
            assert name in value or isinstance(inner, Optional), f"{where}.{name} is missing"
            if name in value:
                _check(value[name], inner, f"{where}.{name}")


def _parsed(manifest):
    (create,) = kubernetes.apply(manifest)
    assert create.words == ("kubectl", "create", "--filename=-")
    return yaml.safe_load(create.text)


def _jobset(claim="shared", **changes):
    fields = {"accelerator": "tpu-v5-lite-podslice", "topology": "16x16", "chips": 4, "restarts": 100}
    return _parsed(kubernetes.jobset(TRAIN, "image:1", claim, **{**fields, **changes}))


def _check_job_spec(spec):
    """What batch/v1 demands beyond types."""
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed"
    assert pod["restartPolicy"] == "Never"  # or the API takes no podFailurePolicy
    assert 0 < spec["parallelism"] <= spec["completions"]
    mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
    assert mounts == {volume["name"] for volume in pod.get("volumes", [])}
    for rule in spec["podFailurePolicy"]["rules"]:
        assert ("onExitCodes" in rule) != ("onPodConditions" in rule)
        assert rule["action"] in ("FailJob", "Ignore", "FailIndex", "Count")
        # FailIndex is taken only where failures are counted by index.
        assert rule["action"] != "FailIndex" or "backoffLimitPerIndex" in spec
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] == container["name"]
            assert 0 not in rule["onExitCodes"]["values"]


@pytest.mark.smoke
@pytest.mark.parametrize("claim", ["shared", ""])
def test_a_jobset_has_what_the_api_asks_for(claim):
    manifest = _jobset(claim)
    _check(manifest, _JOBSET)
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert ("volumes" in pod) == bool(claim)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = manifest["spec"]["replicatedJobs"]
    _check_job_spec(job["template"]["spec"])


@pytest.mark.parametrize(
    ("topology", "chips", "hosts"), [("16x16", 4, 64), ("4x4x8", 4, 32), ("2x4", 8, 1), ("2x2", 1, 4)]
)
def test_a_jobset_has_a_pod_on_each_host(topology, chips, hosts):
    spec = _jobset(topology=topology, chips=chips)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == hosts
    pod = spec["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology


def test_a_mistake_ends_a_jobset_and_a_stopped_one_starts_again():
    spec = _jobset(restarts=7)["spec"]
    assert spec["failurePolicy"] == {
        "maxRestarts": 7,  # of failures for other reasons than the rule's
        "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
    }
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])
    assert job["backoffLimit"] == 0  # one host alone cannot be started again


@pytest.mark.smoke
def test_an_indexed_job_has_what_the_api_asks_for():
    manifest = _parsed(kubernetes.indexed_job(SWEEP, "image:1", "shared", parts=24, at_once=8, gpus=1))
    _check(manifest, _JOB)
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    spec = manifest["spec"]
    _check_job_spec(spec)
    assert (spec["completions"], spec["parallelism"]) == (24, 8)
    actions = {
        tuple(rule.get("onExitCodes", {}).get("values", ["disrupted"])): rule["action"]
        for rule in spec["podFailurePolicy"]["rules"]
    }
    assert actions == {(75,): "Ignore", (2,): "FailIndex", ("disrupted",): "Ignore"}


def test_a_job_is_exec_so_that_the_signal_reaches_it():
    manifest = _parsed(kubernetes.indexed_job(SWEEP, "image:1", "shared", parts=2, at_once=8, gpus=0))
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    shell, flag, line = container["command"]
    assert (shell, flag) == ("sh", "-c")
    assert line.startswith("exec python launch/sweep.py ")
    assert line.endswith(' --part="$JOB_COMPLETION_INDEX" --parts=2')
    assert container["resources"]["limits"] == {}
