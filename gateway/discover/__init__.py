"""What `tidegate discover` hears, and the contracts that it makes of it: ears -> Survey -> patterns -> Proposal -> page."""
