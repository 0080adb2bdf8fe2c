"""What the viewers show, read from the folder of a run or of states; what is missing is explained."""
