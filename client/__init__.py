"""What runs on a device: the Flower ClientApp, the device's half of secure sums, and its encrypted store."""
