"""What runs and sweeps say, as statistics over plain rows and arrays; no file is read here."""
