"""Forms of tokens: how they are made and read. No I/O."""
