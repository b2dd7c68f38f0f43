"""The same model calls into chatter-db and into what else keeps them, measured in one run."""
