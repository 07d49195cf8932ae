"""How configs are proposed and stopped."""
