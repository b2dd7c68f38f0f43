select chatter.undo_repricing(:repricing)
