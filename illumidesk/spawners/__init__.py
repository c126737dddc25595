"""How people's servers start."""

from illumidesk.spawners.choice import RoleChoice
from illumidesk.spawners.systemd import IllumiDeskRoleSystemdSpawner

__all__ = ["IllumiDeskRoleSystemdSpawner", "RoleChoice"]
