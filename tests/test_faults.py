"""The fault table: what can go wrong, what is said, the exit code, what is left, and the tests that
hold it.

One line that begins `main.py: error:` goes with exit code 2 throughout; "-" where nothing is wrong
in the end. Tests marked slow (`python -m pytest -m slow`) have a fast representative in the same
row.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).resolve().parent


class Row(NamedTuple):
    fault: str
    line: str  # what the user reads
    code: str  # exit code
    left: str  # on the disk
    tests: str  # "FILE: test, test; FILE: test", files without test_ and .py, tests without test_


TABLE = [
    # Kills
    Row(
        "kill -9 of a training, between saves and in a save",
        "-",
        "137",
        "the last checkpoint; resumed bit for bit",
        "faults_kills: a_training_killed_in_a_save_and_between_saves_ends_with_the_same_weights, "
        "a_training_killed_at_20_moments_and_20_disk_operations_ends_with_the_same_weights; "
        "resume: kill_9_at_random_moments_costs_nothing, kill_9_during_a_save_costs_nothing; "
        "checkpoint: a_crash_at_any_step_costs_no_checkpoint; log: "
        "kill_9_at_any_moment_leaves_a_whole_log",
    ),
    Row(
        "kill -9 of two ranks",
        "-",
        "137",
        "the same",
        "faults_kills: "
        "two_ranks_killed_together_end_with_the_same_weights, "
        "two_ranks_killed_at_20_moments_end_with_the_same_weights; "
        "resume: two_ranks_killed_with_their_launcher_resume_to_the_same_weights",
    ),
    Row(
        "kill -9 of an evaluation",
        "-",
        "137",
        "its sums; resumed to the same numbers and files",
        "faults_kills: "
        "an_evaluation_killed_in_a_save_and_between_saves_ends_with_the_same_numbers, "
        "an_evaluation_killed_at_20_moments_ends_with_the_same_numbers, "
        "an_evaluation_by_two_ranks_killed_at_20_moments_ends_with_the_same_numbers; "
        "resume_jobs: an_evaluation_killed_again_and_again_ends_with_the_same_numbers",
    ),
    Row(
        "kill -9 of an inference",
        "-",
        "137",
        "the sources that were done; resumed to the same files",
        "faults_kills: an_inference_killed_in_a_save_and_between_saves_leaves_the_same_files, "
        "an_inference_killed_at_20_moments_leaves_the_same_files; resume_jobs: "
        "inference_skips_the_sources_that_are_done; video: "
        "a_run_that_is_killed_outright_leaves_nothing_under_the_final_name",
    ),
    Row(
        "one rank is killed",
        "rank 1 was ended by SIGKILL: if nobody did that, memory was short",
        "137",
        "the last checkpoint",
        "faults_runs: a_rank_that_is_killed_is_named_by_the_launcher",
    ),
    Row(
        "SIGTERM, Ctrl-C",
        "stopped by SIGTERM; --resume goes on from here",
        "143, 130",
        "a checkpoint of this moment",
        "faults_runs: a_signal_saves_names_itself_and_costs_nothing, "
        "a_signal_to_one_of_two_ranks_stops_both_with_one_line; resume: "
        "sigterm_saves_and_exits_143_and_resumes; "
        "resume_jobs: sigterm_and_resume_through_the_command_line; cli: "
        "inference_stopped_by_sigterm_keeps_what_it_has; "
        "video: a_killed_run_leaves_a_readable_video; visualize: exploring_goes_on_until_ctrl_c",
    ),
    Row(
        "a loader worker dies",
        "a loader worker died (...): if nobody killed it, memory was short: lower ...",
        "2",
        "the last checkpoint",
        "faults_runs: a_loader_worker_that_dies_is_told_and_the_run_goes_on_later, "
        "a_loader_worker_that_dies_while_it_hands_over_a_batch_is_told_too",
    ),
    # Training
    Row(
        "loss or gradients NaN or Inf at step k",
        "the loss is not finite in epoch 1, step 5: ce nan, aux 1.2; lower ...",
        "2",
        "the last good checkpoint",
        "faults_runs: "
        "a_loss_that_is_not_finite_stops_the_run_which_can_go_on_from_the_last_good_state, "
        "all_terms_of_a_loss_that_is_not_finite_are_named",
    ),
    Row(
        "the same with --on-nonfinite skip",
        "left out: the loss is not finite in ...; 1 of 8 steps were left out",
        "0",
        "what the other steps made, on all ranks",
        "faults_runs: "
        "a_step_that_is_left_out_changes_nothing_and_is_counted, "
        "what_was_left_out_is_still_counted_after_a_resume, "
        "two_ranks_leave_a_step_out_together, "
        "in_half_precision_the_scaler_leaves_steps_out_by_itself, "
        "an_epoch_of_which_every_step_would_be_left_out_stops_the_run",
    ),
    Row(
        "the clock jumps back",
        "-",
        "0",
        "the same",
        "faults_runs: "
        "nothing_depends_on_a_clock_that_runs_backwards, nobody_asks_for_the_time_of_day, "
        "every_file_of_the_program_is_looked_at",
    ),
    Row(
        "ranks with different options, data or weights",
        "the ranks have different options: rank 0 --batch-size 2, ...",
        "2",
        "nothing",
        "faults_runs: ranks_with_different_options_are_told, ranks_with_different_data_are_told, "
        "ranks_with_different_weights_are_told; ranks: "
        "a_user_error_under_two_ranks_is_printed_once_with_exit_code_2",
    ),
    Row(
        "a batch larger than the data set",
        "the training set has 16 clips, fewer than one batch of 99 ...",
        "2",
        "nothing",
        "faults_settings: a_batch_larger_than_the_data_set_is_told; cli: "
        "batch_norm_without_a_batch_is_explained",
    ),
    Row(
        "numbers beyond any machine, or memory that does not suffice",
        "--num-workers 100000 would start as many processes: 256 at most; there is not enough "
        "memory for this ...",
        "2",
        "nothing",
        "faults_settings: numbers_beyond_any_machine_are_refused, "
        "memory_that_does_not_suffice_is_one_line",
    ),
    # Weights and checkpoints
    Row(
        "weights: missing, truncated, no weights, of another method, backbone or class count",
        "FILE does not fit the model: ...; is it of another --backbone, --method or option?",
        "2",
        "nothing",
        "faults_files: wrong_weights_are_refused_before_anything_is_written, "
        "the_exit_code_and_the_line_are_those_of_the_process; load_weights: "
        "a_bad_file_is_one_helpful_line_and_leaves_the_model_alone, "
        "the_error_names_other_classes_and_other_backbones; cli: "
        "weights_that_name_other_classes_are_refused",
    ),
    Row(
        "a malicious pickle",
        "FILE holds pickled objects (posix.system), which could run code and are refused",
        "2",
        "nothing, and nothing was run",
        "checkpoint: a_malicious_file_is_refused_and_does_nothing; faults_files: "
        "of_a_checkpoint_that_holds_code_the_previous_one_is_used",
    ),
    Row(
        "weights that name a network that cannot be, or more than a network",
        "what the weights say of their network cannot be: argument --backbone: invalid choice: ...",
        "2",
        "nothing",
        "weights_options: a_file_of_strangers_sets_nothing_but_the_network, "
        "files_that_say_nothing_change_nothing",
    ),
    Row(
        "the newest checkpoint is truncated, at any offset",
        "FILE is damaged or no checkpoint (...); went on with FILE.previous",
        "0",
        "the same as without",
        "faults_files: of_a_truncated_checkpoint_the_previous_one_is_used_and_named, "
        "without_any_whole_checkpoint_nothing_begins; checkpoint: "
        "truncation_anywhere_is_noticed_and_the_previous_file_used; resume: "
        "a_truncated_checkpoint_is_named_and_the_one_before_is_used",
    ),
    Row(
        "the record of what an inference has done is damaged",
        "FILE is damaged: leave --resume out to start anew",
        "2",
        "what was there",
        "faults_files: a_damaged_list_of_finished_sources_is_named",
    ),
    Row(
        "--resume with other options",
        "FILE was trained with --backbone erf, not psp18: resume with ...",
        "2",
        "what was there",
        "resume: resuming_with_other_options_is_refused_and_nothing_changes; resume_jobs: "
        "sums_of_other_weights_are_not_added_to",
    ),
    # Savedir and disk
    Row(
        "a savedir that holds a training",
        "FOLDER holds a checkpoint: --resume goes on from it, --overwrite ...",
        "2",
        "what was there",
        "faults_files: a_savedir_with_a_checkpoint_is_not_overwritten_unasked",
    ),
    Row(
        "two runs in one savedir",
        "--savedir FOLDER is in use by another run (process 123): wait for its end, or ...",
        "2",
        "the other run's",
        "faults_files: a_savedir_in_use_is_refused_until_its_run_is_gone_however_it_went, "
        "of_two_runs_that_start_together_one_has_the_savedir",
    ),
    Row(
        "a savedir that is a file, below a file, read-only",
        "cannot write into --savedir FOLDER: Read-only file system",
        "2",
        "nothing",
        "faults_files: a_savedir_that_is_a_file_or_lies_below_one_is_told, "
        "a_read_only_savedir_is_told, a_savedir_that_may_not_be_written_is_told; "
        "video: a_file_in_place_of_the_folder_is_an_error",
    ),
    Row(
        "the disk fills up or becomes read-only",
        "could not save FILE: No space left on device; is there space, ...",
        "2",
        "the last checkpoint; nothing half-written",
        "faults_files: "
        "a_training_whose_file_finds_no_room_says_which_and_goes_on_later, "
        "an_evaluation_whose_file_finds_no_room_says_which, "
        "an_inference_whose_label_finds_no_room_says_which, "
        "a_limit_on_file_size_is_told_and_nothing_half_written_stays, "
        "a_full_disk_is_told_and_the_checkpoint_before_stays; checkpoint: "
        "a_full_disk_at_any_step_costs_no_checkpoint; "
        "video: a_disk_that_is_filling_stops_the_run_and_keeps_the_video, "
        "frames_that_do_not_reach_the_disk_are_an_error",
    ),
    # Data sets
    Row(
        "images of 16 bits, palette, alpha, CMYK; turned by EXIF: not applied, for labels have "
        "none",
        "-",
        "0",
        "results",
        "faults_data: an_unusual_image_is_read; files: any_kind_of_image_is_read_as_rgb, "
        "sixteen_bits_become_eight, the_exif_orientation_is_not_applied",
    ),
    Row(
        "images or labels truncated, of zero bytes, missing, of another size, of floats; ids out "
        "of range",
        "FILE cannot be read as an image ...; the label FILE holds the id 77, which is none of "
        "the 11 classes ...",
        "2",
        "no results",
        "faults_data: an_image_that_cannot_serve_is_named, "
        "training_data_broken_in_a_worker_is_named, "
        "frames_of_several_sizes_in_a_training_are_named; "
        "files: a_file_cut_short_is_named, an_unknown_id_is_named_as_it_is_in_the_file; "
        "check_data: every_fault_is_named_and_the_rest_is_still_checked",
    ),
    Row(
        "missing or odd neighbours",
        "FILE does not exist; clip/1 is 16x16 (HxW), but clip/2 of the same clip 24x32",
        "2",
        "no results",
        "faults_data: a_missing_neighbour_is_named, "
        "a_neighbour_of_another_size_is_named_or_brought_to_the_work_size; "
        "cityscapes: a_missing_neighbour_is_an_error_when_it_is_needed",
    ),
    Row(
        "an empty data set, a missing split",
        "no clips in FOLDER: expected <clip>/images/*.png or ...",
        "2",
        "nothing",
        "faults_data: a_data_set_without_content_is_told, "
        "a_missing_validation_split_is_told_before_training",
    ),
    Row(
        "duplicate names",
        "A.jpg and A.png are one frame twice: remove one of them",
        "2",
        "no results",
        "faults_data: an_image_that_cannot_serve_is_named; faults_video: "
        "a_source_named_twice_or_like_another_overwrites_nothing; cityscapes: "
        "files_with_strange_names_are_told_or_left_alone; source_names: "
        "names_of_several_sources_differ",
    ),
    Row(
        "more ranks than GPUs or cores",
        "--gpus 64 starts as many processes: this machine has 2 processor cores",
        "2",
        "nothing",
        "setup: more_ranks_than_the_machine_has_places_are_refused",
    ),
    # Sources
    Row(
        "images of a source: any kind, turned as EXIF says",
        "-",
        "0",
        "labels",
        "faults_data: "
        "images_of_a_source_are_turned_as_exif_says_and_may_be_of_any_kind; source_images: "
        "every_kind_of_pixel_becomes_rgb, images_are_turned_as_their_exif_says",
    ),
    Row(
        "a damaged image among a source's",
        "2.png cannot be read as an image (...)",
        "2",
        "the frames before it",
        "source_images: a_damaged_image_is_an_error_that_names_it, "
        "an_image_that_vanishes_is_an_error_that_names_it",
    ),
    Row(
        "a video of odd sides, one frame, alpha, changing size, 0 frames a second",
        "FILE says 0 frames a second: 25 assumed",
        "0",
        "labels and overlay of every frame",
        "faults_video: an_unusual_video_is_labelled_whole; source: "
        "an_impossible_rate_becomes_25_with_a_note",
    ),
    Row(
        "a truncated video",
        "FILE ended after 20 of 221 frames",
        "0, or 2 without any frame",
        "the frames there are",
        "faults_video: a_truncated_video_is_labelled_as_far_as_it_goes_and_said_to_be_cut; source: "
        "a_video_cut_short_gives_what_there_is_and_a_note, "
        "a_video_of_which_no_frame_is_left_is_an_error",
    ),
    Row(
        "a stream that drops and comes back",
        "ADDRESS dropped after 6 frames, reconnected (attempt 2)",
        "0",
        "all frames that came",
        "faults_video: a_stream_that_drops_is_told_and_labelled_on; source_streams: "
        "a_stream_reconnects_when_it_drops_and_gives_up_in_the_end, "
        "a_stream_that_drops_again_and_again_is_given_up",
    ),
    Row(
        "a camera that is not there",
        "camera 77 cannot be opened: is it connected, and free of other programs?",
        "2",
        "no output",
        "faults_video: a_camera_that_is_not_there_is_told; source_streams: "
        "a_camera_that_is_not_there_is_one_line",
    ),
    Row(
        "one bad source of several",
        "1 of 3 sources failed: ...",
        "2",
        "the others' output",
        "faults_video: "
        "one_bad_source_of_several_is_named_and_the_others_are_done; cli: "
        "a_failing_source_of_one_rank_does_not_stop_the_other_rank",
    ),
    Row(
        "a pipe that ends inside an image",
        "standard input ended inside image 3: 2 came whole",
        "0",
        "those",
        "source_pipe: a_pipe_that_ends_inside_an_image_keeps_what_came_whole",
    ),
    # Settings and surroundings
    Row(
        "a setting that cannot work",
        "--data-root /nowhere is not a folder: ...; --precision fp16 needs a GPU ...",
        "2",
        "nothing",
        "faults_settings: a_setting_that_cannot_work_is_told, "
        "a_job_without_weights_or_source_says_which_option_is_missing, "
        "a_foreign_package_named_datasets_is_noticed",
    ),
    Row(
        "a visdom server that is absent, hangs or dies",
        "the dashboard at ... cannot be reached: ...",
        "0",
        "the record, for --replay",
        "visualize: "
        "without_a_server_there_is_one_warning_and_a_replay_shows_it_later; visdom_client: "
        "a_server_that_hangs_costs_one_warning_and_no_time",
    ),
    Row(
        "no C++ compiler, or one that fails, or no place to keep what it builds",
        "local attention takes its slower way on cpu: its C++ kernels could not be built: ...",
        "0",
        "the same",
        "local_attention_cpp: without_a_compiler_that_works_reads_take_the_slower_way_and_say_why, "
        "processes_that_begin_at_once_all_get_them_and_a_damaged_one_is_built_anew, "
        "a_folder_that_cannot_be_written_does_not_matter, "
        "without_a_home_nothing_is_kept_and_nothing_is_missed, "
        "temporary_files_need_not_be_executable, without_openmp_they_have_threads_of_their_own",
    ),
    # Words and consoles
    Row(
        "a mistyped option, name or recipe",
        "unrecognized arguments: --num-epoch 3; did you mean --num-epochs? ...",
        "2",
        "nothing",
        "options: a_wrong_word_gets_one_line_and_exit_code_2",
    ),
    Row(
        "a recipe with a BOM, in UTF-16, with CRLF; in Latin-1: told with file and line",
        "recipe FILE, line 2: this is no text file in UTF-8; save it as UTF-8",
        "2",
        "nothing",
        "options: a_recipe_from_another_system_is_read, a_recipe_that_cannot_be_read_is_told",
    ),
    Row(
        "a resume with another value of any option that the run depends on",
        "checkpoint.pth.tar was trained with --corr-size 21, not 9: resume with the options in ...",
        "2",
        "as it was, args.txt included",
        "every_option: a_resume_with_another_value_is_refused_by_name; new_method: "
        "args_txt_repeats_its_run_and_a_resume_must_be_of_the_same_run",
    ),
    Row(
        "weights that say what cannot be of their network",
        "what the weights say of their network cannot be: --corr-size cannot be 8: ...",
        "2",
        "nothing",
        "weights_options: a_file_that_says_what_cannot_be_gets_one_line, "
        "a_file_of_strangers_sets_nothing_but_the_network",
    ),
    Row(
        "a weights file that is missing, beside other mistakes",
        "there is no checkpoint at FILE",
        "2",
        "nothing",
        "endings: a_missing_weights_file_is_said_before_anything_else",
    ),
    Row(
        "a finished evaluation or inference in the savedir",
        "FOLDER holds a finished evaluation: --resume goes on from it, --overwrite starts anew ...",
        "2",
        "as it was; with --overwrite the older run is removed",
        "endings: a_finished_evaluation_is_not_overwritten_in_silence; resume_jobs: "
        "inference_skips_the_sources_that_are_done",
    ),
    Row(
        "stdout that nobody reads: a listing cut by head, a run without its console",
        "-",
        "141; 0",
        "all that the run writes",
        "endings: a_listing_that_head_cuts_ends_quietly, a_run_goes_on_without_its_console",
    ),
    Row(
        "RANK=0 and WORLD_SIZE=1 of a scheduler, without an address to meet at",
        "with more ranks: the environment says WORLD_SIZE=2 but no MASTER_ADDR ...",
        "0; 2",
        "as without",
        "endings: a_scheduler_that_sets_a_rank_for_every_job_does_no_harm",
    ),
    Row(
        "--work-size with width and height swapped, --eval-crop larger than the frames",
        "--work-size 64 32 is height, width; ...: did you mean --work-size 32 64?",
        "0",
        "as asked for",
        "endings: sizes_that_are_odd_are_told",
    ),
    Row(
        "an error that is no mistake of the user's",
        "... (unexpected, at FILE:LINE; STREAMSEG_DEBUG=1 shows more)",
        "2",
        "as after any error",
        "endings: a_bug_of_ours_keeps_its_place_and_a_mistake_of_the_users_has_none",
    ),
    Row(
        "a stream address with a password",
        "-",
        "-",
        "no password in args.txt and results",
        "endings: passwords_of_streams_are_written_nowhere",
    ),
    # Labels, layouts and text
    Row(
        "labels that teach nothing: 0/255 masks, all ignored, a class that never occurs",
        "class NAME never occurs in N labels; 255 (ignored) fills N % of them: are these 0/255 "
        "masks? ...",
        "2 from --check-data; a training goes on",
        "nothing",
        "check_data: labels_that_teach_nothing_are_a_problem; "
        "labels: counts_that_teach_nothing_are_told",
    ),
    Row(
        "a layout that is nearly right",
        "... lie side by side: put them into a clip folder (...)",
        "2",
        "nothing",
        "check_data: a_layout_that_is_nearly_right_is_recognised_with_advice",
    ),
    Row(
        "a list of classes whose line cannot be told for sure",
        "classes.txt, line N (...): ...; expected name [r g b]",
        "2",
        "nothing",
        "folder: a_class_that_cannot_be_told_for_sure_names_its_line",
    ),
    Row(
        "text from other systems",
        "-",
        "-",
        "-",
        "folder: text_of_other_systems_is_read, "
        "latin_1_is_read_with_a_word_about_it_and_what_is_no_text_is_refused; "
        "camvid: lists_of_frames_may_come_from_other_systems",
    ),
    Row(
        "weights for other classes of equal number, in training",
        "the weights were trained for A, not for B: --new-classes makes the outputs new",
        "0",
        "-",
        "labels: weights_of_other_classes_are_told_but_not_another_spelling",
    ),
    # Videos
    Row(
        "a packet of a video is damaged",
        "1 frame could not be decoded",
        "0",
        "all other frames, same length",
        "faults_video: a_damaged_packet_is_counted_and_the_others_are_labelled; "
        "source_decoding: a_damaged_packet_costs_one_frame_and_no_time, "
        "a_damaged_key_frame_costs_all_that_refer_to_it; "
        "output_time: a_damaged_packet_does_not_shorten_what_is_written",
    ),
    Row(
        "a picture is larger than players take",
        "frames of 64x8196 (HxW) are scaled to ...",
        "0",
        "a scaled video, all labels",
        "faults_video: a_side_by_side_wider_than_players_take_is_scaled_and_told; "
        "video: frames_larger_than_players_take_are_scaled_with_one_note",
    ),
    Row(
        "a video is whole, but its count or rate is wrong",
        "-",
        "0",
        "all frames at their times",
        "source_decoding: a_container_with_a_wrong_count_is_whole, "
        "a_variable_rate_keeps_its_times, "
        "a_stream_copy_that_begins_between_key_frames_is_whole",
    ),
    Row(
        "an AVI or mkv is cut short",
        "ended after N of M frames",
        "0",
        "what came",
        "source_decoding: what_was_cut_short_is_told",
    ),
    Row(
        "PyAV is missing",
        "... pip install av",
        "0",
        "mp4v at a constant rate",
        "source_decoding: without_pyav_opencv_decodes_with_a_note_that_names_it; "
        "video: without_pyav_opencv_writes_with_a_note_that_names_it",
    ),
    # Handing over batches
    Row(
        "/dev/shm is small",
        "/dev/shm has 64 MB (N MB free), too little to queue batches of N MB: they go through a "
        "pipe, ...",
        "0",
        "the run goes on",
        "loader_memory: batches_are_the_same_through_a_pipe_and_one_line_says_so, "
        "a_small_dev_shm_is_enough, room_that_is_gone_when_it_is_taken_costs_no_batch",
    ),
    Row(
        "/dev/shm has no room for locks",
        "no loader workers: /dev/shm has ..., too little for their locks",
        "0",
        "the run goes on",
        "loader_memory: without_room_for_locks_there_are_no_workers",
    ),
    Row(
        "a batch cannot be sent",
        "the worker's error",
        "2",
        "as before",
        "loader_memory: what_no_way_can_send_is_an_error_and_no_wait, "
        "what_the_queue_cannot_send_goes_another_way",
    ),
    Row(
        "a signal while no batch comes",
        "stopped by SIGTERM; --resume goes on from here",
        "143",
        "a checkpoint",
        "loader_memory: a_signal_ends_the_wait_for_a_batch_that_does_not_come, "
        "a_signal_before_the_wait_ends_it_too",
    ),
    # Weights of other tools
    Row(
        "weights are another kind of file",
        "... is a TorchScript archive, which holds code besides weights: ...",
        "2",
        "nothing",
        "checkpoint: the_error_says_what_a_file_is_that_is_no_checkpoint, "
        "an_archive_is_named_by_what_is_in_it, a_network_that_torchscript_saved_is_named, "
        "a_file_without_a_mark_is_named_by_its_name",
    ),
    Row(
        "safetensors are damaged",
        "... is a damaged safetensors file (N bytes; ...): copy or download it again",
        "2",
        "nothing",
        "checkpoint: damaged_safetensors_are_one_line",
    ),
    Row(
        "a folder without weights",
        "there is no checkpoint in the folder ...: expected ..., found ...; name the file",
        "2",
        "nothing",
        "checkpoint: a_folder_means_its_best_weights",
    ),
    # Sources
    Row(
        "a source is another kind of file: HEIC, PDF, ZIP, raw photographs, text",
        "photo.heic is an HEIC image, which is not read (...): a source is ...",
        "2",
        "the outputs of other sources",
        "source_names: other_kinds_of_files_are_called_by_name",
    ),
    Row(
        "an image has too many pixels",
        "FILE has 324.0 million pixels, more than the 300 million that are read: make it smaller",
        "2",
        "what was labelled before it",
        "source_images: an_image_with_too_many_pixels_is_told_the_limit, "
        "images_of_300_million_pixels_are_read_and_larger_ones_are_not",
    ),
    Row(
        "a broken link in a folder of images or videos",
        "there is no FILE: was it moved, or is it a link to what was?",
        "2",
        "what was labelled before it",
        "source_names: a_broken_link_to_an_image_or_video_is_no_silence; "
        "source_images: a_broken_link_is_an_error_that_names_it",
    ),
    Row(
        "a damaged page of an image with several",
        "a.tif cannot be read as an image (page 4 of 5: ...)",
        "2",
        "the pages before it",
        "source_images: a_damaged_page_is_an_error_that_names_file_and_page",
    ),
    Row(
        "files of a folder that no source reads",
        "DIR: 3 entries are not labelled, IMG_0.heic is the first: an HEIC image, ...",
        "0",
        "labels of the others",
        "source_names: what_no_source_reads_is_counted_and_named, "
        "folders_that_a_glob_matches_give_their_images_and_videos; "
        "labelling: what_a_folder_holds_and_no_source_reads_is_told",
    ),
    Row(
        "pictures behind the first of a JPEG or PPM",
        "DIR: of 2 files only the first picture is labelled (a.jpg is the first): ...",
        "0",
        "labels of the first",
        "source_images: pictures_behind_the_one_that_is_read_are_told",
    ),
    Row(
        "names that are no UTF-8, or with a newline",
        r"caf\xe9\n.png cannot be read ...",
        "0 or 2",
        "labels under safe names",
        "source_images: names_that_are_no_utf_8_are_read_and_told; "
        "source_names: a_folder_of_names_that_are_no_utf_8_is_labelled, "
        "messages_about_any_name_are_one_line_that_can_be_printed; "
        "labelling: a_savedir_whose_name_is_no_utf_8_is_refused",
    ),
    Row(
        "a source that may not be read",
        "FILE may not be read: change its permissions",
        "2",
        "nothing",
        "source_images: what_may_not_be_read_is_told_as_that",
    ),
    Row(
        "the savedir is the folder that is labelled",
        "-",
        "0",
        "labels of the user's own files; --overwrite removes what runs wrote and nothing else",
        "labelling: an_inference_never_reads_what_it_wrote, "
        "overwriting_removes_what_the_runs_wrote_and_nothing_else",
    ),
    # Classes
    Row(
        "a wrong line in a class map",
        "FILE, line N ('...'): ...; expected from -> to",
        "2",
        "nothing",
        "class_map: a_wrong_line_is_told_with_its_number",
    ),
    Row(
        "a class map names a class that does not exist",
        "... is none of the classes ...; did you mean road?",
        "2",
        "nothing",
        "class_map: an_unknown_name_is_told_with_its_line_and_what_was_meant, "
        "a_map_that_cannot_be_is_told_in_one_line_before_anything_is_written",
    ),
    Row(
        "a class map without a line for a class",
        "... has no line for ...: add one for each, or * -> ignore",
        "2",
        "nothing",
        "class_map: names_that_no_line_has_are_an_error_unless_a_star_takes_them, "
        "a_map_of_other_data_is_refused",
    ),
    Row(
        "no such class map",
        "... is neither a file nor one of ...",
        "2",
        "nothing",
        "class_map: an_unknown_map_is_told_with_those_that_there_are",
    ),
    Row(
        "a class map, and weights that do not name their classes",
        "the weights do not name their classes, ...",
        "2",
        "nothing",
        "class_map: weights_that_name_no_classes_need_a_map_of_known_ones",
    ),
    Row(
        "--coarse-labels that are no tree of clips, or a map that does not fit",
        "--coarse-labels ... is not a folder; --coarse-map: ...",
        "2",
        "nothing",
        "pseudo_labels: coarse_labels_that_cannot_serve_are_told_before_anything_is_written",
    ),
    Row(
        "a coarse label of another size than its frame",
        "the coarse label FILE is 32x48 (HxW), but the frame ... is ...",
        "2",
        "the other sources",
        "pseudo_labels: a_coarse_label_of_another_size_than_the_frame_is_named",
    ),
    Row(
        "an inference into the data set of another one",
        "... holds the data set of an inference (dataset): --resume ...",
        "2",
        "the data set as it was",
        "pseudo_labels: a_data_set_that_was_begun_is_not_mixed_with_another",
    ),
    Row(
        "--show names a class that does not exist",
        "--show: ...; did you mean ...?",
        "2",
        "nothing",
        "class_map: only_shown_classes_cover_the_picture_and_label_pngs_have_all",
    ),
    Row(
        "a class map leaves out classes of the training labels",
        "--class-map leaves out N classes of the labels (...): wall 1.2 %",
        "0",
        "the training",
        "class_map: a_training_by_a_map_says_what_it_leaves_out_and_its_weights_are_scored",
    ),
    # VSPW and VSS-MRCFA
    Row(
        "a video of a VSPW list, a list, or a label that is not there",
        "does not exist, but the split lists it",
        "2",
        "nothing",
        "vspw: what_is_missing_is_named, a_folder_without_videos_says_what_was_expected",
    ),
    Row(
        "a label image that is missing when an evaluation ends, or one too many",
        "lacks N of M label images",
        "2",
        "the results",
        "vspw: a_label_image_that_is_missing_is_named",
    ),
    Row(
        "frames of fewer than five cells for mrcfa",
        "take frames of at least 5 cells of 32x32 pixels",
        "2",
        "the record of the run",
        "vspw: frames_of_too_few_cells_are_refused_in_one_line; mrcfa: "
        "sizes_as_measured_on_the_original",
    ),
    Row(
        "--compare-with a folder without an inference, without labels of a source, or of fewer "
        "frames",
        "holds no inference; has no labels of NAME; has the labels of N frames, and M come",
        "2",
        "nothing; with fewer frames the record of the run",
        "split_screen: what_cannot_be_compared_is_told_before_a_frame_is_labelled",
    ),
    Row(
        "--compare-with label PNGs of another size, torn or missing",
        "is HxW, the frame HxW; cannot be read; has no FRAME.png",
        "2",
        "the video until then",
        "split_screen: a_label_of_another_size_and_a_missing_one_are_named, "
        "a_file_that_is_no_picture_is_named",
    ),
    Row(
        "--clip-list that is missing, empty or of clips that are not in the split",
        "no such file; names no frame; N of its M clips are not in the SPLIT split",
        "2",
        "nothing",
        "clip_list: a_list_that_is_missing_empty_or_of_other_clips_is_named",
    ),
    # Flow on disk
    Row(
        "--flow-cache with a file that is torn, empty, of another size or not finite",
        "it is computed anew, as others like it",
        "0",
        "the file, whole again",
        "flow_cache: a_bad_file_is_computed_anew_and_told_once",
    ),
    Row(
        "--flow-cache in a folder that takes no file",
        "cannot be written; the run goes on without",
        "0",
        "what was there",
        "flow_cache: a_folder_that_takes_no_file_ends_no_run",
    ),
    Row(
        "--flow-cache that is a file",
        "is a file: give a folder",
        "2",
        "nothing",
        "flow_cache: a_file_in_place_of_the_folder_is_refused_before_anything_is_written",
    ),
    Row(
        "--flow-cache beside a flow network that is trained",
        "is trained in this run, and its flow changes with every step",
        "2",
        "nothing",
        "flow_cache: flow_of_a_network_that_is_trained_is_refused",
    ),
]


def named(row: Row) -> list[tuple[str, str]]:
    """(file, test) of a row."""
    parts = [part.strip().split(": ") for part in row.tests.split(";")]
    return [
        (f"test_{file}.py", f"test_{test.strip()}")
        for file, tests in parts
        for test in tests.split(",")
    ]


def cases_in(file: Path) -> dict[str, bool]:
    """Its tests, and whether all their cases are slow."""
    functions = [
        node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    return {
        node.name: any(ast.unparse(mark) == "pytest.mark.slow" for mark in node.decorator_list)
        for node in functions
        if node.name.startswith("test_")
    }


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.fault)
def test_every_row_is_held_by_tests_that_exist_and_one_is_fast(row):
    slow = [cases_in(HERE / file)[test] for file, test in named(row)]
    assert not all(slow)


def test_every_test_of_a_fault_is_in_the_table():
    known = {place for row in TABLE for place in named(row)}
    missing = [
        (file.name, test)
        for file in HERE.glob("test_faults_*.py")
        for test in cases_in(file)
        if (file.name, test) not in known
    ]
    assert not missing


def test_the_table_names_each_fault_once():
    assert len({row.fault for row in TABLE}) == len(TABLE)
