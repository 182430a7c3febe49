"""The trainer: from token shards to a StarCoder, SantaCoder or StarCoder2 model that transformers loads (extra `train`)."""
