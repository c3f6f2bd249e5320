"""From checks to a state: rules, error control, power."""
