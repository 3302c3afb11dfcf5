"""The only code that talks to the kernel: objects, observe, diff, plan, apply."""
