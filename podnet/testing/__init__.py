"""Labs in your own tests: the pytest plugin, and questions to a lab that read like questions."""
