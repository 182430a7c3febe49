"""GH Archive: what the public events of GitHub tell of its repositories."""
