"""The warm server: the plugin's verbs in a process that is there already, for callers that pass it their call."""
