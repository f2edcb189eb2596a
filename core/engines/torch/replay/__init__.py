"""Running again only what follows a layer: a recording, and what depends on a layer."""
