"""What a bundle says: its files and their digests, calibration, certificates, signature, known answers."""
