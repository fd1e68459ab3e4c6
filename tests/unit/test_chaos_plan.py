"""What ./dev chaos does is drawn from its seed alone."""

from itertools import islice

from chaos.plan import AFTER, ALONE, CHOICES, KILLS, SLOTS, Slot, steps


def test_a_seed_is_a_run_that_can_be_had_again() -> None:
    first, second, other = ([str(step) for step, _ in islice(steps(seed), 300)] for seed in (5, 5, 6))
    assert first == second != other


def test_everything_happens() -> None:
    seen = [step for step, _ in islice(steps(1), 3000)]
    kinds = {action.kind for step in seen for action in step.actions}
    assert kinds == {*ALONE, *(kind for choices in CHOICES.values() for kind in choices)}
    assert {step.trouble.kind for step in seen if step.trouble} == {"kill", "stop", "full", "clock"}
    assert {step.trouble.roles for step in seen if step.trouble} == {(), *KILLS}


def test_only_what_can_be_is_asked_for() -> None:
    """Each action fits the state that its container was left in; one name is met once a step."""
    states = dict.fromkeys(SLOTS, "absent")
    for step, slots in islice(steps(2), 500):
        names = [action.name for action in step.actions]
        assert len(set(names)) == len(names)
        for action in step.actions:
            if action.name in states:
                assert action.kind in CHOICES[states[action.name]]
                assert slots[action.name].state in ("doubtful", "exited", "running", AFTER.get(action.kind, states[action.name]))
        states = {name: slot.state for name, slot in slots.items()}


def test_containers_are_called_what_no_id_begins_with() -> None:
    assert not any(set(name) <= set("0123456789abcdef") for name in SLOTS)
    assert Slot().state == "absent"
