"""Putting the plugin where container runtimes look for it, and taking it away again."""
