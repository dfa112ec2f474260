"""The local stack: finds or starts Kafka, Redis, Vault and Ray as processes of this machine, and stops exactly those."""
