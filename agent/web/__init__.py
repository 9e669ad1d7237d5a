"""HTTP: the page that a radiologist leaves open, and what an administrator's tools ask (health, readiness, metrics)."""
