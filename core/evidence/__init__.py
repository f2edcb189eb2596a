"""What is known of each layer: rules, weight statistics and measured perturbations."""
