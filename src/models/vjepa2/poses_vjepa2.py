"""Poses of a robot's gripper: place, orientation and opening; and actions, the changes from pose to pose.

A pose has 7 numbers: x, y, z; the angles of turns about the fixed axes x, then y, then z, in radians; and how far the
gripper is closed, from 0 to 1. Rotations are computed in float64.

Source: facebookresearch/vjepa2 at c2963a47, `notebooks/utils/mpc_utils.py` and `app/vjepa_droid/droid.py`.
"""

import torch


STRAIGHT = 1e-7
"""Cosine of the middle angle below which the outer two can't be told apart."""


def compute_new_pose(pose: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """The pose after an action: places add up, the action's turn follows the pose's, the opening stays in [0, 1].

    Args:
        pose: (…, 7).
        action: (…, 7).

    Returns:
        (…, 7), in the pose's dtype, on its device.
    """
    _check(pose, 7, "pose")
    _check(action, 7, "action")
    action = action.to(pose.device)
    rotation = _matrices(action[..., 3:6]) @ _matrices(pose[..., 3:6])
    place, gripper = pose[..., :3] + action[..., :3], (pose[..., 6:] + action[..., 6:]).clamp(0, 1)
    return torch.cat([place.to(pose.dtype), _angles(rotation, pose), gripper.to(pose.dtype)], dim=-1)


def poses_to_actions(poses: torch.Tensor) -> torch.Tensor:
    """The actions that lead from each pose of a trajectory to the next one.

    Args:
        poses: (…, T, 7).

    Returns:
        (…, T - 1, 7), in the dtype of the poses.
    """
    _check(poses, 7, "poses")
    if poses.ndim < 2:
        raise ValueError(f"Expected `poses` of shape (…, time, 7), got {tuple(poses.shape)}.")
    matrices, change = _matrices(poses[..., 3:6]), poses[..., 1:, :] - poses[..., :-1, :]
    rotation = matrices[..., 1:, :, :] @ matrices[..., :-1, :, :].mT
    return torch.cat([change[..., :3], _angles(rotation, poses), change[..., 6:]], dim=-1)


def poses_in_camera_frame(poses: torch.Tensor, extrinsics: torch.Tensor) -> torch.Tensor:
    """Poses as a camera sees them.

    Args:
        poses: (…, 7), in the robot's frame.
        extrinsics: (…, 6), place and orientation of the camera in that frame.

    Returns:
        (…, 7), in the dtype of the poses.
    """
    _check(poses, 7, "poses")
    _check(extrinsics, 6, "extrinsics")
    extrinsics = extrinsics.to(poses.device)
    towards = _matrices(extrinsics[..., 3:]).mT  # (…, 3, 3)
    offset = _double(poses[..., :3]) - _double(extrinsics[..., :3])
    place = (towards @ offset[..., None])[..., 0].to(poses.device, poses.dtype)
    return torch.cat([place, _angles(towards @ _matrices(poses[..., 3:6]), poses), poses[..., 6:]], dim=-1)


def _matrices(angles: torch.Tensor) -> torch.Tensor:
    """Rotations (…, 3, 3), float64, by angles (…, 3) about the fixed axes x, y and z, one after the other."""
    (cx, cy, cz), (sx, sy, sz) = (function(_double(angles)).unbind(-1) for function in (torch.cos, torch.sin))
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _angles(rotations: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Angles (…, 3) of rotations (…, 3, 3); the middle one in [-π/2, π/2], and the last one 0 if that is an end."""
    r = rotations
    cosine = torch.hypot(r[..., 0, 0], r[..., 1, 0])
    x, z = torch.atan2(r[..., 2, 1], r[..., 2, 2]), torch.atan2(r[..., 1, 0], r[..., 0, 0])
    is_end = cosine < STRAIGHT
    x = torch.where(is_end, torch.atan2(-r[..., 1, 2], r[..., 1, 1]), x)
    z = torch.where(is_end, torch.zeros_like(z), z)
    return torch.stack([x, torch.atan2(-r[..., 2, 0], cosine), z], dim=-1).to(like.device, like.dtype)


def _double(values: torch.Tensor) -> torch.Tensor:
    """Values in float64; on the CPU if their device has none."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def _check(values: torch.Tensor, width: int, name: str) -> None:
    if values.ndim < 1 or values.shape[-1] != width or not values.is_floating_point():
        raise ValueError(
            f"Expected `{name}` as floats of shape (…, {width}), got {values.dtype} {tuple(values.shape)}."
        )


__all__ = ["compute_new_pose", "poses_in_camera_frame", "poses_to_actions"]
