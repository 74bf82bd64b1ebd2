"""What runs at the aggregator: contexts, distillation, gate, registry and evaluation."""
