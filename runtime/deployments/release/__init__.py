"""A release over time: applied, waited for, recorded, rolled back, removed."""
