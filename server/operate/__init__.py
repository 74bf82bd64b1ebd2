"""How a person runs a fleet's server: certificates, devices, the SuperLink and its run."""
