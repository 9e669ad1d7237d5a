"""The running service: state, policy, time. The only room that opens the database."""
