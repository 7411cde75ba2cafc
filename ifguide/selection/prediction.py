"""What a selection would do, to first order: the change in the query losses when the model is trained against it.

The objective (Eq. 9) is the mean over all V predicted tokens of w·CE, with w = 1, or -λ on selected tokens. Selecting a
token lowers its weight by (1 + λ)/V. To first order, changing a token's weight by ε changes the query losses'
difference L_toxic - L_safe by -ε·s, where s = vᵀ∇ℓ is the token's score and v = (F + dI)⁻¹(ḡ_toxic - ḡ_safe). So a
selection changes it by

    Δ(L_toxic - L_safe) = (1 + λ)/V · (sum of the selected tokens' scores):

positive when toxic completions become less likely against safe ones. Only this difference can be predicted: v holds the
two query sets' difference, and the share of each is not kept. A study's score is a mean over checkpoints of score /
standard deviation, and v is damped, so the prediction has no unit; what it can do is to compare selections of one
study.
"""


def predicted_change(effect: float, n_valid: int, penalty: float) -> float:
    """The predicted change of the toxic minus the safe query loss, in the study's units of score: of `effect`, the sum
    of the selected tokens' scores, V predicted tokens in the objective, and the `penalty` λ, `suppress.penalty`."""
    return (1.0 + penalty) * effect / n_valid
