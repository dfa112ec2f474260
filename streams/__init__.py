"""The only place that knows Kafka: Transform, Fold, View and the broker port."""
