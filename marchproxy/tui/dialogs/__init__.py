"""What lies over a tab until it is answered; Escape leaves everything as it is."""
