import numpy as np
import pytest
import torch
from torch import nn

from dali_fixres.errors import ModelError
from dali_fixres.models import find_head, insert_mapping
from dali_fixres.models.frechet_distribution import Frechet, describe, fit_frechet, reduced
from dali_fixres.models.frechet_mapping import FrechetMapping
from pipelines.resolution import Resolution

HEAVY, BOUNDED, GUMBEL = Frechet(1.0, 0.5, 0.3), Frechet(0.2, 2.0, -0.2), Frechet(0.3, 0.1, 0.0)


@pytest.mark.parametrize(
    ("fitted", "value", "share"),
    [
        (HEAVY, 1.0, np.exp(-1.0)),  # the location is the quantile of 1 / e, whatever the shape
        (BOUNDED, 0.2, np.exp(-1.0)),
        (GUMBEL, 0.3, np.exp(-1.0)),
        (Frechet(0.0, 1.0, 1.0), 1.0, np.exp(-1 / 2)),  # exp(-(1 + x) ** -1)
        (Frechet(0.0, 1.0, -1.0), 0.5, np.exp(-0.5)),  # exp(-(1 - x))
        (Frechet(0.0, 1.0, 0.0), np.log(2.0), np.exp(-0.5)),  # exp(-exp(-x))
    ],
)
def test_quantiles_by_hand(fitted: Frechet, value: float, share: float) -> None:
    """Quantiles undo the paper's formula of F, with its limit for a shape of 0."""
    np.testing.assert_allclose(fitted.at(reduced(np.array([share]))), [value], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fitted", [HEAVY, BOUNDED, GUMBEL])
def test_density_is_the_slope_of_f(fitted: Frechet) -> None:
    """The density that plots show is the derivative of F, and 0 outside."""
    shares = np.array([0.01, 0.3, 0.5, 0.99])
    slope = 2e-6 / (fitted.at(reduced(shares + 1e-6)) - fitted.at(reduced(shares - 1e-6)))
    np.testing.assert_allclose(fitted.pdf(fitted.at(reduced(shares))), slope, rtol=1e-4)
    # The ends of the support are 1 - 0.5 / 0.3 and 0.2 + 2 / 0.2.
    assert HEAVY.pdf(np.array([-1.0])).tolist() == BOUNDED.pdf(np.array([11.0])).tolist() == [0.0]


@pytest.mark.parametrize("true", [HEAVY, BOUNDED, GUMBEL, Frechet(-3.0, 0.01, 0.1)])
def test_a_sample_gives_its_distribution_back(true: Frechet) -> None:
    """From 200,000 draws, to within the method's error (1e-3 of the shape) and five standard errors (about 5e-3)."""
    drawn = true.location + true.scale * _standard_draws(true.shape, 200_000)
    found = fit_frechet(np.sort(drawn))
    assert abs(found.shape - true.shape) < 0.02
    assert abs(found.location - true.location) < 0.02 * true.scale
    assert abs(found.scale / true.scale - 1) < 0.02


def _standard_draws(shape: float, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Draw by way of exponential numbers, which are -log F."""
    exponential = np.random.default_rng(3).exponential(size=count)
    return -np.log(exponential) if shape == 0 else (exponential**-shape - 1) / shape


def test_fit_by_hand() -> None:
    """L-moments of the numbers 1 to 100: mean 50.5, L-scale (n + 1) / 6, L-skewness 0."""
    found = fit_frechet(np.arange(1.0, 101.0))
    # c = 2/3 - ln 2/ln 3 = 0.0357369 and k = 7.8590 c + 2.9554 c^2 = 0.2846307; tables of the gamma function have
    # 0.9007185 at 1.28 and 0.8990416 at 1.29.
    k, gamma = 0.2846307, 0.899942
    assert found.shape == pytest.approx(-k, abs=1e-6)
    assert found.scale == pytest.approx(101 / 6 * k / (gamma * (1 - 2**-k)), rel=1e-4)
    assert found.location == pytest.approx(50.5 - found.scale * (1 - gamma) / k, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.arange(99.0), "cannot be fitted to 99 activations"), (np.ones(200), "are all the same")],
)
def test_what_cannot_be_fitted(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], message: str) -> None:
    """Too few values, or one value only, are refused."""
    with pytest.raises(ModelError, match=message):
        fit_frechet(values)


def test_zeros_are_a_share_of_their_own() -> None:
    """After a ReLU zeros are counted and left out of the fit; where any value is below zero, all are fitted."""
    positive = np.random.default_rng(0).random(900).astype(np.float32) + 0.5
    with_zeros = np.concatenate([positive, np.zeros(100, np.float32)])
    rectified, (one, other) = describe(with_zeros, positive)
    assert rectified
    assert (one.zeros, other.zeros) == (0.1, 0.0)
    assert one.fitted == other.fitted
    signed, (one, other) = describe(with_zeros, -positive)
    assert not signed
    assert one.fitted != describe(with_zeros)[1][0].fitted


def test_a_new_mapping_changes_nothing() -> None:
    """Until it is filled it gives back what it gets, in its number format."""
    features = torch.linspace(-30, 30, 1001)
    torch.testing.assert_close(FrechetMapping()(features), features, rtol=1e-6, atol=1e-5)
    assert FrechetMapping()(features.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("trained", [HEAVY, BOUNDED, GUMBEL])
@pytest.mark.parametrize("tested", [HEAVY, BOUNDED, GUMBEL])
def test_quantiles_go_to_quantiles(trained: Frechet, tested: Frechet) -> None:
    """What lies at a quantile in testing comes to lie at that quantile of training."""
    mapping = FrechetMapping()
    mapping.fill(trained, tested, rectified=False)
    shares = np.array([0.001, 0.1, 0.5, 0.9, 0.999])
    mapped = mapping(torch.from_numpy(tested.at(reduced(shares))))
    np.testing.assert_allclose(mapped.numpy(), trained.at(reduced(shares)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trained", [HEAVY, BOUNDED, GUMBEL])
@pytest.mark.parametrize("tested", [HEAVY, BOUNDED, GUMBEL])
def test_the_mapping_is_finite_and_increases(trained: Frechet, tested: Frechet) -> None:
    """Also far outside the support of either distribution, where its slope is one."""
    mapping = FrechetMapping()
    mapping.fill(trained, tested, rectified=False)
    features = torch.linspace(-200, 200, 4001, dtype=torch.float32)
    mapped = mapping(features)
    assert torch.isfinite(mapped).all()
    assert (mapped.diff() > 0).all()
    torch.testing.assert_close(mapped.diff()[[0, -1]], features.diff()[[0, -1]], rtol=1e-2, atol=0)


def test_rectified_activations_stay_rectified() -> None:
    """A zero stays zero, nothing comes out below zero, and a NaN is not hidden."""
    mapping = FrechetMapping()
    mapping.fill(Frechet(0.1, 1.0, 0.0), Frechet(0.5, 0.2, 0.1), rectified=True)
    mapped = mapping(torch.tensor([0.0, 0.01, 0.5, 3.0, float("nan")]))
    assert mapped[:2].tolist() == [0.0, 0.0]
    assert mapped[2].item() == pytest.approx(0.1, abs=1e-6)
    assert mapped[3] > mapped[2]
    assert mapped[4].isnan()


@pytest.mark.parametrize("name", ["2", "4"])
def test_a_mapping_stands_before_the_classifier(name: str) -> None:
    """It is inserted by name, also into a sequence, and classifier and norm are found behind and before it."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*(body if name == "4" else [*body[:2], nn.Sequential(*body[2:])]))
    last = nn.Linear(4, 2)
    network.append(last)
    classifier = find_head(network, Resolution(64)).classifier_name
    images = torch.rand(2, 3, 32, 32)
    before = network(images)
    mapping = insert_mapping(network, classifier)
    torch.testing.assert_close(network(images), before)
    mapping.fill(Frechet(5.0, 1.0, 0.0), Frechet(0.0, 1.0, 0.0), rectified=False)
    torch.testing.assert_close(network(images), before + 5 * last.weight.sum(1))
    head = find_head(network, Resolution(64))
    assert (head.classifier_name, head.norm_name) == (f"{classifier}.classifier", "1")


def test_a_layer_that_is_not_there() -> None:
    """A checkpoint that names another layer is refused in one line."""
    with pytest.raises(ModelError, match=r"Sequential has no layer 'head.fc' to put a Fréchet mapping before"):
        insert_mapping(nn.Sequential(nn.Linear(2, 2)), "head.fc")


def test_reduced() -> None:
    """The reduced variate of 1 / e is 0."""
    assert reduced(np.array([np.exp(-1.0)]))[0] == pytest.approx(0.0, abs=1e-15)
