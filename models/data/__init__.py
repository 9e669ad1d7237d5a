"""Films with labels: where they lie, what is known of each, and how they are split."""
