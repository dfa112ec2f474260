"""The local stack: finds or starts Kafka, Redis, Vault and Ray as processes of this machine, and stops exactly those."""

from tools.stack.stack import AGENT_GROUPS, Stack, StackStatus, down, status, up

__all__ = ["AGENT_GROUPS", "Stack", "StackStatus", "down", "status", "up"]
