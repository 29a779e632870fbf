"""The lab: containers that behave like real hosts (systemd, SSH, their own Docker) and a local image registry."""
