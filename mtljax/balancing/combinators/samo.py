"""Task gradients at perturbed parameters."""

import dataclasses
import functools

from mtljax.balancing import base
from mtljax.balancing.combinators.wrapping import refuse_balancer


@base.with_spec
def samo(
    balancer: base.Balancer, rho: float = 0.003, beta: float = 0.1, epsilon: float = 0.01
) -> base.Balancer:
    """A balancer on gradients at parameters that are perturbed per task: sharpness-aware (SAMO).

    For each task t, the shared parameters move by rho a_t / |a_t| with a_t = (1 - beta) g + beta
    h_t, where g is the gradient of the mean loss. The estimate h_t costs two forward passes: along
    z_t of standard normal numbers, h_t = s_t z_t, with s_t the sign of L_t(theta + epsilon z_t) -
    L_t(theta - epsilon z_t), scaled to the norm of g in each array of parameters. The parameters of
    head t move by rho along their gradient. The balancer gets the gradients of L_t at these points,
    and the losses at the parameters themselves. The heads receive the gradients at these points.

    Convention: as in the authors' code, also for batch normalization: its running statistics for
    the estimates, those of the batch for the gradients. beta is the code's, 1 - alpha of the paper;
    for NYUv2 the code uses h_t without the scaling per array. A step costs about T + 1 steps of
    `ew` with one head each, and 2 T forward passes; with more than 8 tasks, with all heads.

    Args:
      balancer: A balancer that reads one sample and takes no trial step.
      rho: Length of the perturbation; the code's default is 0.003 for NYUv2 and Cityscapes, 0.001
        for CelebA and 1e-5 for QM9. 0: the balancer itself.
      beta: Share of the task's estimate, in [0, 1].
      epsilon: Step of the finite differences, > 0.

    References:
      Ban, Subramani and Ji, 2025, arXiv:2507.07883
    """
    refuse = functools.partial(refuse_balancer, "samo", balancer)
    if not 0 <= rho < float("inf") or not 0 <= beta <= 1 or epsilon <= 0:
        raise ValueError(
            f"samo: needs rho >= 0, beta in [0, 1] and epsilon > 0, not {rho}, {beta}, {epsilon}"
        )
    if balancer.samples > 1 or balancer.lookahead:
        refuse("reads several samples or takes a trial step, which needs the parameters themselves")
    if balancer.alignment is not None:
        refuse("changes the gradients of the heads by those of the representation")
    if balancer.perturbation is not None:
        refuse("perturbs the parameters already")
    if rho == 0:
        return balancer
    point = base.Perturbation(rho, beta, epsilon)

    def perturb(inner: base.Balancer) -> base.Balancer:
        return dataclasses.replace(inner, perturbation=point, parameters_only=True, spec=None)

    between = None if balancer.between is None else perturb(balancer.between)
    return dataclasses.replace(perturb(balancer), between=between)
