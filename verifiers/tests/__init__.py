"""Both verifiers, in running servers, against a service whose answers can be forged."""
