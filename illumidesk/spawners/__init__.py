"""How people's servers start."""

from illumidesk.spawners.choice import RoleChoice, WorkspaceChoice
from illumidesk.spawners.systemd import IllumiDeskRoleSystemdSpawner, IllumiDeskWorkspaceSystemdSpawner

__all__ = ["IllumiDeskRoleSystemdSpawner", "IllumiDeskWorkspaceSystemdSpawner", "RoleChoice", "WorkspaceChoice"]
