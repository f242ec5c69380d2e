"""What settings switch on. These modules are imported when that is so, and cost nothing otherwise."""
