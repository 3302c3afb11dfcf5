"""The plugin's own verbs: an attachment made, taken away, checked and collected, in process."""
