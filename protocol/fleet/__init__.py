"""Who belongs to a fleet: the signed list of members, a device's own key, and how devices join."""
