"""Errors of poses, and poses that fit better.

Other rooms use:

- `uncertainty`: `PoseSpread`, `PoseErrors` and `PosePrior`, what is known of poses beside the images;
- `spread.measure_spread`: how wide the errors of poses are, from the images;
- `likelihood`: `PoseModel`, the likelihood of images as a function of poses, `pose_covariance`, `pose_deviation`;
- `refinement.refine_poses` and, as published, `descent.descend_poses`;
- `still_frame`: `find_drift` and `in_still_frame`, from a frame that turns with the states to that of a still part;
- `schedules.POSE_SCHEDULES`: both by the name of the option.
"""
