"""All checks of a method, in the order in which they run."""

from collections.abc import Callable
from typing import Final

from trainables.conformance.case import Bench, Case
from trainables.conformance.of_losses import (
    a_peer_that_is_not_a_number_is_named,
    a_single_sample_that_is_left_over_joins_the_batch_before_it,
    a_student_that_is_not_a_number_is_named,
    a_teacher_that_is_not_a_number_is_named,
    deterministic_algorithms_suffice,
    gradient_reaches_who_learns_and_nobody_else,
    its_losses_are_finite_and_named,
    its_losses_are_finite_in_bfloat16_too,
    its_losses_see_the_maps_of_both_nets_if_it_needs_them,
    its_own_loss_reaches_whom_it_should,
    its_published_values_are_a_valid_trial,
    its_specification_is_one_that_can_be_run,
    nobody_else_changes_the_students_first_weights,
    the_networks_beside_the_student_keep_their_own_statistics,
)
from trainables.conformance.of_trials import (
    a_resumed_trial_equals_one_never_stopped,
    everything_that_learns_is_in_the_checkpoint,
    its_ledger_says_what_a_step_takes,
    its_random_numbers_come_from_its_own_generator,
    looking_at_its_cost_changes_no_bit,
    no_batch_waits_for_a_value,
    stored_teacher_outputs_give_what_live_ones_give,
    the_same_seed_gives_the_same_bits_and_another_others,
)

Check = Callable[[Case, Bench], None]

CHECKS: Final[list[Check]] = [
    its_specification_is_one_that_can_be_run,
    its_published_values_are_a_valid_trial,
    its_losses_are_finite_and_named,
    its_losses_are_finite_in_bfloat16_too,
    a_single_sample_that_is_left_over_joins_the_batch_before_it,
    deterministic_algorithms_suffice,
    gradient_reaches_who_learns_and_nobody_else,
    its_own_loss_reaches_whom_it_should,
    nobody_else_changes_the_students_first_weights,
    the_networks_beside_the_student_keep_their_own_statistics,
    its_random_numbers_come_from_its_own_generator,
    the_same_seed_gives_the_same_bits_and_another_others,
    a_resumed_trial_equals_one_never_stopped,
    everything_that_learns_is_in_the_checkpoint,
    a_student_that_is_not_a_number_is_named,
    a_teacher_that_is_not_a_number_is_named,
    a_peer_that_is_not_a_number_is_named,
    its_losses_see_the_maps_of_both_nets_if_it_needs_them,
    stored_teacher_outputs_give_what_live_ones_give,
    no_batch_waits_for_a_value,
    its_ledger_says_what_a_step_takes,
    looking_at_its_cost_changes_no_bit,
]
