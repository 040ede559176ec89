"""The nouns of the embedded language: a taxonomy of three levels, gendered people, names, places and contents.

``word/plural`` gives an irregular plural, ``word:m`` or ``word:f`` a gender. A line of the taxonomy reads
``top > mid @topic: leaves``; the topic ``any`` belongs to every topic.
"""

from __future__ import annotations

TOPICS_MATCHED = ("kitchen", "school", "farm", "office")
TOPICS_MISMATCHED = ("harbour", "hospital", "theatre", "workshop")
TOPICS = TOPICS_MATCHED + TOPICS_MISMATCHED

TAXONOMY = """
person > cook @kitchen: chef baker caterer pastrycook
person > servant @kitchen: butler:m maid:f waiter:m waitress:f
person > teacher @school: tutor professor lecturer governess:f
person > pupil @school: freshman/freshmen:m schoolgirl:f schoolboy:m prefect
person > farmer @farm: shepherd:m dairyman/dairymen:m milkmaid:f rancher
person > neighbour @farm: villager squire:m lodger settler
person > clerk @office: typist cashier archivist bookkeeper
person > manager @office: director supervisor chairman/chairmen:m chairwoman/chairwomen:f
person > sailor @harbour: captain boatswain helmsman/helmsmen:m deckhand
person > official @harbour: harbourmaster coastguard inspector warden
person > doctor @hospital: surgeon dentist oculist anaesthetist
person > carer @hospital: nurse midwife/midwives:f matron:f orderly
person > performer @theatre: actor:m actress:f comedian acrobat
person > musician @theatre: violinist drummer pianist flautist
person > craftsman/craftsmen @workshop: carpenter blacksmith potter mason
person > mechanic @workshop: plumber welder electrician locksmith
animal > dog @any: spaniel terrier poodle beagle collie mastiff
animal > bird @any: robin sparrow owl crow heron magpie
animal > rodent @kitchen: mouse/mice rat hamster
animal > insect @school: beetle moth wasp ladybird
animal > horse @farm: pony mare:f stallion:m foal
animal > cow @farm: heifer:f calf/calves jersey
animal > pig @farm: piglet sow:f boar:m hog
animal > cat @office: tabby tomcat:m kitten moggy
animal > fish/fishes @harbour: herring sardine pike eel
animal > mollusc @harbour: oyster mussel clam squid
animal > reptile @hospital: lizard tortoise gecko
animal > monkey @theatre: baboon chimpanzee macaque
animal > goose/geese @workshop: gander:m gosling greylag
object > pan @kitchen: skillet saucepan wok casserole
object > knife/knives @kitchen: cleaver breadknife/breadknives dagger
object > dish @kitchen: platter bowl saucer tureen
object > cake @kitchen: muffin brownie sponge gingerbread
object > fruit @kitchen: apple pear cherry plum
object > book @school: atlas dictionary textbook thesaurus
object > pen @school: biro quill crayon
object > desk @school: bureau lectern workbench
object > game @school: crossword chessboard jigsaw
object > cart @farm: wagon barrow haywain
object > vegetable @farm: carrot turnip potato/potatoes cabbage
object > basket @farm: hamper pannier punnet creel
object > fence @farm: hedge paling railing
object > machine @office: printer copier shredder computer
object > letter @office: memo invoice postcard circular
object > folder @office: binder dossier portfolio
object > chair @office: stool armchair rocker bench
object > boat @harbour: yacht dinghy ferry canoe
object > rope @harbour: cable hawser mooring
object > lamp @harbour: lantern beacon floodlight
object > box @harbour: crate chest trunk carton
object > instrument @hospital: scalpel syringe thermometer stethoscope
object > bandage @hospital: plaster sling tourniquet
object > bed @hospital: cot stretcher bunk
object > medicine @hospital: pill tablet ointment syrup
object > costume @theatre: cloak gown tunic robe
object > mask @theatre: visor domino blindfold
object > ticket @theatre: voucher wristband coupon
object > violin @theatre: viola fiddle rebec
object > tool @workshop: hammer chisel wrench mallet
object > vehicle @workshop: lorry van tractor motorcycle
object > engine @workshop: motor turbine dynamo
object > nail @workshop: rivet tack staple
object > hat @any: bonnet beret cap turban
object > bag @any: satchel rucksack purse suitcase
object > coat @any: jacket parka anorak
object > picture @any: portrait sketchbook mural poster
"""

GENDERED = """
king:m queen:f prince:m princess:f father:m mother:f uncle:m aunt:f boy:m girl:f man/men:m woman/women:f husband:m
wife/wives:f brother:m sister:f son:m daughter:f nephew:m niece:f monk:m nun:f wizard:m witch:f hero/heroes:m heroine:f
host:m hostess:f widower:m widow:f groom:m bride:f lord:m lady:f grandfather:m grandmother:f gentleman/gentlemen:m
gentlewoman/gentlewomen:f policeman/policemen:m policewoman/policewomen:f
"""

COMMON_PEOPLE = """
child/children visitor stranger guest traveller student lawyer judge soldier tourist driver singer poet writer artist
thief/thieves burglar beggar pilgrim witness customer shopkeeper librarian engineer scientist gardener porter guard
"""

NAMES_M = """
Adam Albert Arthur Basil Daniel Edgar Felix George Harold Henry Hugo Isaac Kevin Lewis Martin Oliver Oscar Patrick Peter
Ralph Simon Stephen Thomas Victor Walter Conrad
"""

NAMES_F = """
Agatha Agnes Alice Amelia Beatrice Clara Daphne Dorothy Edith Eleanor Fiona Grace Harriet Helen Irene Isabel Judith
Laura
Lydia Margaret Martha Matilda Nancy Olivia Sophia Ursula
"""

MASS = """
flour rice sugar butter milk honey chalk ink paper glue straw hay wheat barley manure software stationery cardboard tar
sand seaweed canvas plasma iodine music scenery velvet timber steel cement varnish furniture luggage jewellery
"""

CONTENTS = """
claim rumour report idea belief tale theory suspicion hint complaint announcement warning message excuse argument
bulletin confession statement suggestion prophecy/prophecies
"""

EVENTS = """
storm blizzard noise fire flood accident explosion earthquake blunder misfortune scandal defeat eclipse blackout
avalanche quarrel collapse drought riot
"""

PLACES = """
kitchen: in the kitchen|in the pantry|at the stove|in the cellar|in the restaurant|at the sink
school: in the classroom|in the library|in the schoolyard|at the school|in the gymnasium|in the canteen
farm: in the barn|in the meadow|on the farm|in the orchard|in the stable|at the well
office: in the office|in the lobby|in the boardroom|in the corridor|at the counter|in the mailroom
harbour: in the harbour|on the pier|on the deck|on the beach|at the lighthouse|in the dockyard
hospital: in the hospital|in the clinic|in the ward|in the waiting room|at the pharmacy|in the laboratory
theatre: in the theatre|on the stage|in the dressing room|in the balcony|in the foyer|at the rehearsal
workshop: in the workshop|in the garage|in the foundry|in the shed|at the forge|in the factory
any: in the garden|in the street|in the park|at the market|at the station|in the village
"""

SYNONYM_NOUNS = """
physician=doctor seaman/seamen=sailor hound=dog vessel=boat cord=rope volume=book seat=chair note=letter barrier=fence
implement=tool boss=manager robber=thief kid=child caller=visitor outsider=stranger sightseer=tourist shopper=customer
author=writer trooper=soldier onlooker=witness sack=bag instructor=teacher illustration=picture
carriage=cart attorney=lawyer vocalist=singer container=box
"""
