"""Does a model see disease, or how the film was made? The shortcut audit: measurements, rules, a verdict per label."""
