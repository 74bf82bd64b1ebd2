"""What runs on a device: games, policies, encoders and the Flower ClientApp."""
