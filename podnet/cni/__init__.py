"""The container network interface: attachments, and (with the plugin) requests, results, verbs."""
