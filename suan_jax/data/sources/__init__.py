"""Adapters from the official files of public logs, and from anyone's own tables."""
