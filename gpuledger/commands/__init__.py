"""The commands, by topic. What a command needs is imported inside it: `--help` answers in a blink."""
