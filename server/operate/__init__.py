"""Operation of a fleet's server: certificates, enrolment of devices, the SuperLink and its run."""
