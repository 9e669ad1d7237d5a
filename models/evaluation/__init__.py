"""How good a bundle is on films with labels: scores, figures with intervals, and the pages that show them."""
