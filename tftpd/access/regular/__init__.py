"""Regular expressions over octets, with a bound on what a match costs."""
